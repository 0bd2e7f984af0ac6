"""EdgePrune: put a training set on a small device, train there, and know what it costs."""
