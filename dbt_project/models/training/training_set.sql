with labels as (

  select * from {{ ref('labels') }}

),

transactions as (

  select * from {{ ref('stg_transactions') }}

),

features as (

  select * from {{ ref('transaction_features') }}

),

moment as (

  select coalesce({{ as_of() }}, max(event_time) + 1) as as_of from transactions

),

-- Frauds become known at once, legitimacy only when the window has passed: rows inside the window are left
-- out whatever is known of them, or the youngest rows would all be frauds.
mature as (

  select labels.transaction_id, labels.status = 'fraud' as is_fraud
  from labels
  cross join moment
  where labels.event_time <= moment.as_of - {{ var('maturity_days') * 86400000 }}

),

final as (

  select
    transactions.transaction_id,
    transactions.event_time,
    transactions.card_id,
    transactions.customer_id,
    transactions.merchant_id,
    transactions.currency,
    mature.is_fraud,
    features.* exclude (transaction_id, event_time)
  from mature
  inner join transactions on mature.transaction_id = transactions.transaction_id
  inner join features on mature.transaction_id = features.transaction_id

)

select * from final
