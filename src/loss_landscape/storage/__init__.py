"""What the Writer keeps: a database, and files for others. It knows results, and no net."""
