"""The tables of a landscape database, version by version."""

from __future__ import annotations

from loss_landscape.files import UnreadableFileError
from loss_landscape.storage.connection import Database

MIGRATIONS = (
    """
    CREATE TABLE surfaces (
        surface_id INTEGER PRIMARY KEY, status VARCHAR, dim INTEGER, identity VARCHAR, centre_hash VARCHAR, directions_id INTEGER,
        kind VARCHAR, normalization VARCHAR, seed BIGINT, baseline_loss DOUBLE, noise_floor DOUBLE, info VARCHAR,
        created_at VARCHAR
    );
    CREATE TABLE points (
        surface_id INTEGER, i INTEGER, j INTEGER, k INTEGER, alpha DOUBLE, beta DOUBLE, gamma DOUBLE, loss DOUBLE, status VARCHAR
    );
    CREATE TABLE directions (
        directions_id INTEGER, axis INTEGER, digest VARCHAR, dtype VARCHAR, vector BLOB, info VARCHAR
    );
    CREATE TABLE checkpoints (
        checkpoint_id INTEGER, epoch DOUBLE, file VARCHAR, train_loss DOUBLE, val_loss DOUBLE, learning_rate DOUBLE,
        superseded BOOLEAN, recorded_at VARCHAR
    );
    CREATE TABLE spectra (
        spectrum_id INTEGER, epoch DOUBLE, quantity VARCHAR, rank INTEGER, value DOUBLE, standard_error DOUBLE, residual DOUBLE,
        converged BOOLEAN, num_samples INTEGER, info VARCHAR, created_at VARCHAR
    );
    CREATE TABLE trajectories (
        trajectory_id INTEGER, name VARCHAR, mode VARCHAR, plane VARCHAR, info VARCHAR, created_at VARCHAR
    );
    CREATE TABLE trajectory_points (
        trajectory_id INTEGER, position INTEGER, epoch DOUBLE, alpha DOUBLE, beta DOUBLE, gamma DOUBLE, residual DOUBLE,
        loss DOUBLE, plane_loss DOUBLE, train_loss DOUBLE, val_loss DOUBLE, learning_rate DOUBLE
    );
    CREATE TABLE facts (key VARCHAR, value VARCHAR);
    """,
)
"""What makes version n out of version n − 1; that of version 1 begins with an empty file."""


def bring_up_to_date(database: Database, *, read_only: bool) -> None:
    """Bring the tables to the newest version, one at a time, each whole or not at all.

    Raises UnreadableFileError for a newer version than this one knows, for another program's database, and for an older version
    that may not be written to.
    """
    version = _version(database)
    if version > len(MIGRATIONS):
        raise UnreadableFileError(
            f"{database.path} was written by a newer loss_landscape (schema {version}, this one knows {len(MIGRATIONS)}): "
            "pip install --upgrade taskshift"
        )
    if version < len(MIGRATIONS) and read_only:
        raise UnreadableFileError(
            f"{database.path} has schema {version}, older than {len(MIGRATIONS)}: open it once with LandscapeStorage(path), "
            "which brings it up to date and deletes nothing"
        )
    for number in range(version, len(MIGRATIONS)):
        with database.transaction():
            database.run(MIGRATIONS[number])
            database.run("INSERT INTO schema_version VALUES (?)", [number + 1])


def _version(database: Database) -> int:
    tables = {name for (name,) in database.rows("SELECT table_name FROM information_schema.tables")}
    if "schema_version" in tables:
        [(version,)] = database.rows("SELECT coalesce(max(version), 0) FROM schema_version")
        return int(version)
    if tables:
        raise UnreadableFileError(
            f"{database.path} is another program's database: it has the tables {', '.join(sorted(tables)[:4])}"
        )
    database.run("CREATE TABLE schema_version (version INTEGER)")
    return 0
