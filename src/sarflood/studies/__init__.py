"""Comparisons that a user can repeat on own events: many trainings that differ in one setting."""
