"""Tables, sentences and figures of the pages."""
