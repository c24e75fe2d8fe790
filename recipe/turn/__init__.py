"""Trains nano's turn head: from the streamed audio tokens, has the speaker finished?"""
