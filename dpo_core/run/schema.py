"""The tables of a run folder's records (SQLite)."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS candidates (
    set_name TEXT NOT NULL, position INTEGER NOT NULL, prompt_index INTEGER NOT NULL, prompt TEXT NOT NULL,
    seed INTEGER NOT NULL, chunk INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (set_name, position));
CREATE TABLE IF NOT EXISTS sources (
    set_name TEXT NOT NULL, position INTEGER NOT NULL, strength REAL NOT NULL, photo INTEGER,
    PRIMARY KEY (set_name, position));
CREATE TABLE IF NOT EXISTS earlier (
    set_name TEXT NOT NULL, position INTEGER NOT NULL, from_set TEXT NOT NULL, from_position INTEGER NOT NULL,
    PRIMARY KEY (set_name, position));
CREATE TABLE IF NOT EXISTS scores (
    set_name TEXT NOT NULL, position INTEGER NOT NULL, scorer TEXT NOT NULL, fingerprint TEXT NOT NULL,
    value REAL NOT NULL, PRIMARY KEY (set_name, position, scorer));
CREATE TABLE IF NOT EXISTS unscored (
    set_name TEXT NOT NULL, position INTEGER NOT NULL, scorer TEXT NOT NULL, fingerprint TEXT NOT NULL,
    PRIMARY KEY (set_name, position, scorer));
CREATE TABLE IF NOT EXISTS pairs (
    set_name TEXT NOT NULL, number INTEGER NOT NULL, winner INTEGER NOT NULL, loser INTEGER NOT NULL,
    d_fidelity REAL NOT NULL, d_alignment REAL NOT NULL, PRIMARY KEY (set_name, number));
CREATE TABLE IF NOT EXISTS training (
    round INTEGER NOT NULL, step INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (round, step));
"""
