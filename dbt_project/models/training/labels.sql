{%- set precedence = var('label_precedence') -%}
{%- set maturity_ms = var('maturity_days') * 86400000 -%}

with transactions as (

  select transaction_id, event_time from {{ ref('stg_transactions') }}

),

moment as (

  select coalesce({{ as_of() }}, max(event_time) + 1) as as_of from transactions

),

known as (

  select
    events.transaction_id,
    events.source,
    events.outcome,
    events.known_at,
    row_number() over (
      partition by events.transaction_id
      order by
        case events.source
          {%- for source in precedence %}
          when '{{ source }}' then {{ loop.index }}
          {%- endfor %}
          else {{ precedence | length + 1 }}
        end,
        events.known_at desc,
        events.outcome,
        events.source
    ) as rank
  from {{ source('ingest', 'labels') }} as events
  cross join moment
  where events.known_at < moment.as_of

),

decisive as (

  select * from known where rank = 1

),

final as (

  select
    transactions.transaction_id,
    transactions.event_time,
    case
      when decisive.outcome = 'fraud' then 'fraud'
      when transactions.event_time <= moment.as_of - {{ maturity_ms }} then 'legitimate'
      else 'immature'
    end as status,
    decisive.source,
    decisive.known_at
  from transactions
  cross join moment
  left join decisive on transactions.transaction_id = decisive.transaction_id
  where transactions.event_time < moment.as_of

)

select * from final
