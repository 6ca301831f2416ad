with transactions as (

  select * from {{ ref('stg_transactions') }} where {{ is_new_row('event_time') }}

),

{% for entity in var('entities') -%}
{{ entity }}_features as (

  select * from {{ ref(entity ~ '_features') }} where {{ is_new_row('event_time') }}

),

{% endfor -%}
final as (

  select
    transactions.transaction_id,
    transactions.event_time,
    {%- for feature in declared_features() %}
    {{ input_column(feature['name']) if feature.get('entity') else row_expression(feature) }} as {{ feature['name'] }}{{ ',' if not loop.last }}
    {%- endfor %}
  from transactions
  {%- for entity in var('entities') %}
  left join {{ entity }}_features on transactions.transaction_id = {{ entity }}_features.transaction_id
  {%- endfor %}

)

select * from final
