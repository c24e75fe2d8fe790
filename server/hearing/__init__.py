"""One session's hearing: who speaks, when a turn ends, its audio tokens."""
