"""Long runs that print figures: not part of the tests, which hold their short forms."""
