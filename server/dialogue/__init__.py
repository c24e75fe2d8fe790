"""What the model is told and what it answers: prompts from turns, events from its token stream."""
