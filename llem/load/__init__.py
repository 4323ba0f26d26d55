"""The client that puts load on a server: when requests are due, HTTP/1.1, server-sent events, what OpenAI's endpoints say."""
