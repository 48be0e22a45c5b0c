"""What changes over time: drift of new events against the accepted ones."""
