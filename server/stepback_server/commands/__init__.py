"""Commands of the server: `stepback serve`, `stepback keys`, `stepback engine`."""
