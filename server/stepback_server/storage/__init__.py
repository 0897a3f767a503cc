"""The database of jobs, files and shared limits: SQLite in a file, or PostgreSQL.

tables.py is the schema, migrations/ its history, database.py the connection. SQLAlchemy is imported
here alone, and in `jobs` and `gateway.shared`: a server that never sees a job never loads it.
"""
