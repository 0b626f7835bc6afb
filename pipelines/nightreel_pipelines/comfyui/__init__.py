"""Keyframes by ComfyUI servers, through the HTTP and websocket interface that their own window uses (version 0.3.64)."""
