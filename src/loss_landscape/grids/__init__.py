"""Losses on lines, planes and volumes: evaluated in chunks, checked, interrupted and resumed."""
