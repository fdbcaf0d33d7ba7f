"""JupyterLab in a real browser: each notebook run to the end, each widget moved by keyboard."""
