{{ entity_features('ip') }}
