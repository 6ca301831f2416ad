{{ entity_features('card_merchant') }}
