{{ entity_features('merchant') }}
