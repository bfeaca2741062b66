"""Results of a line: kept in a database, pictured on disk, delivered to the factory; nothing reported is ever lost."""
