"""Tests of the strategies that propose settings."""
