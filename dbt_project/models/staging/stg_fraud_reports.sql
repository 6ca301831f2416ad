with labels as (

  select * from {{ source('ingest', 'labels') }}

),

transactions as (

  select * from {{ source('ingest', 'transactions') }}

),

first_known as (

  select labels.transaction_id, min(labels.known_at) as known_at
  from labels
  inner join transactions on labels.transaction_id = transactions.transaction_id
  where labels.outcome = 'fraud' and labels.known_at >= transactions.event_time
  group by labels.transaction_id

),

final as (

  select
    first_known.transaction_id,
    first_known.known_at,
    transactions.card_id,
    transactions.customer_id,
    transactions.device_id,
    transactions.ip_id,
    transactions.merchant_id
  from first_known
  inner join transactions on first_known.transaction_id = transactions.transaction_id
  where first_known.known_at - transactions.event_time <= {{ var('report_horizon_days') * 86400000 }}

)

select * from final
