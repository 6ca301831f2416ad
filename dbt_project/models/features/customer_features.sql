{{ entity_features('customer') }}
