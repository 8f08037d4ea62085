"""One file a command, imported when that command is to run: `qiyu token` does not wait for the server to load."""
