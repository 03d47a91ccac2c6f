"""Tables, sentences and figures of the pages."""

# modules: figures need matplotlib, which the engine does not
__all__ = ["figures", "tables", "verdicts"]
