{#-
  One entity's features, a row per transaction that has the entity. The timeline holds both streams in the
  order in which they became known: transactions at event_time, fraud reports at known_at.
-#}
{%- macro entity_features(entity) -%}
{%- set keys = var('entities')[entity] -%}
{%- set features = features_of_entity(entity) -%}
{%- set columns = columns_read(keys, features) -%}
{%- set has_reports = features | selectattr('stream', 'defined') | list | length > 0 -%}

with timeline as (

  select
    transaction_id,
    event_time,
    event_time as moment,
    {{ columns | join(', ') }},
    place,
    cast(null as integer) as reported
  from {{ ref('stg_transactions') }}
  where {% for key in keys %}{{ key }} is not null{{ ' and ' if not loop.last }}{% endfor %}

  {%- if has_reports %}

  union all

  select
    cast(null as varchar) as transaction_id,
    cast(null as bigint) as event_time,
    known_at as moment,
    {% for column in columns -%}
      {{ column if column in keys else 'null as ' ~ column }},
    {% endfor -%}
    null as place,
    1 as reported
  from {{ ref('stg_fraud_reports') }}
  where {% for key in keys %}{{ key }} is not null{{ ' and ' if not loop.last }}{% endfor %}
  {%- endif %}

),

final as (

  select
    transaction_id,
    event_time,
    {%- for feature in features %}
    {{ aggregate(feature) }} as {{ feature['name'] }}{{ ',' if not loop.last }}
    {%- endfor %}
  from timeline
  qualify transaction_id is not null

)

select * from final
{%- endmacro -%}
