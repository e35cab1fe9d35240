"""Storages under one contract."""
