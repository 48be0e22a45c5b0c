"""What keeps a workspace at work: the parts that `sarflood up` runs, and the inbox."""
