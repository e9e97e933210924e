"""The page: one file a tab, layout and events. What things mean is decided in app/*.py and in the engine."""
