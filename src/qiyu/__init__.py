"""A live-streaming instant-messaging server: chat rooms and direct messages over TCP and WebSocket."""
