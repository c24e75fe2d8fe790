"""One spoken conversation: turn detection, speculation, barge-in, the record of what was heard."""
