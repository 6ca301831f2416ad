{{ entity_features('card') }}
