{{ entity_features('device') }}
