"""The `features` stage: one declaration, built offline by dbt and online by the engine, equal to the bit."""
