"""Which part each row of the training source takes: held out, kept few, dealt into folds."""
