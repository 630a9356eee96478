"""Results of the verbs as tables, JSON and progress; it must never compute a result."""
