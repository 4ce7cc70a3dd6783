"""Tests of the aggregators, which share a list of the robust rules."""
