"""Tables, sentences and figures of the pages."""

__all__ = ["figures", "tables", "verdicts"]  # modules: figures need matplotlib, which the engine does not
