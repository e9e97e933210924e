"""The studio: the page in the browser, its queue and its library. Stands on `engine` and `prompt_enhancer`."""
