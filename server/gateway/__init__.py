"""The only modules that touch sockets: WebSocket, REST, admission."""
