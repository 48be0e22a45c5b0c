"""From a source to an accepted event: patches, statistics, verdict, quarantine, all or nothing."""
