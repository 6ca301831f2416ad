{{ entity_features('customer_device') }}
