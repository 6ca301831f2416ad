{#-
  One macro a kind of row expression, named row_<kind>: computed from the transaction itself and from
  features of entities. Twin: fraud_platform/features/rows.py.
-#}

{%- macro row_expression(feature) -%}
  {{ context['row_' ~ feature['kind']](feature) }}
{%- endmacro -%}

{%- macro input_column(name) -%}
  {%- set entities = declared_features() | selectattr('name', 'equalto', name) | selectattr('entity', 'defined') | map(attribute='entity') | list -%}
  {{ (entities[0] ~ '_features' if entities else 'transactions') ~ '.' ~ name }}
{%- endmacro -%}

{%- macro row_field(feature) -%}
  cast(transactions.{{ feature['of'] }} as double)
{%- endmacro -%}

{%- macro row_category(feature) -%}
  transactions.{{ feature['of'] }}
{%- endmacro -%}

{%- macro row_ratio(feature) -%}
  cast({{ input_column(feature['inputs'][0]) }} as double) / nullif({{ input_column(feature['inputs'][1]) }}, 0e0)
{%- endmacro -%}

{%- macro row_zscore(feature) -%}
  (cast({{ input_column(feature['inputs'][0]) }} as double) - {{ input_column(feature['inputs'][1]) }})
  / nullif({{ input_column(feature['inputs'][2]) }}, 0e0)
{%- endmacro -%}

{%- macro row_home_distance_km(feature) -%}
  {{ distance_km('transactions.home.', 'transactions.place.') }}
{%- endmacro -%}

{%- macro row_hour_of_day(feature) -%}
  cast({{ hour_of_day() }} as double)
{%- endmacro -%}

{%- macro row_day_of_week(feature) -%}
  cast({{ day_of_week() }} as double)
{%- endmacro -%}

{%- macro row_is_weekend(feature) -%}
  case when {{ day_of_week() }} >= 5 then 1e0 else 0e0 end
{%- endmacro -%}

{%- macro row_is_night(feature) -%}
  case when {{ hour_of_day() }} < 6 then 1e0 else 0e0 end
{%- endmacro -%}

{%- macro row_roundness(feature) -%}
  case
    {%- for zeros in range(6, 0, -1) %}
    when transactions.amount_minor % {{ 10 ** zeros }} = 0 then {{ zeros }}e0
    {%- endfor %}
    else 0e0
  end
{%- endmacro -%}

{%- macro row_is_different(feature) -%}
  case
    when transactions.{{ feature['of'][0] }} <> transactions.{{ feature['of'][1] }} then 1e0
    when transactions.{{ feature['of'][0] }} = transactions.{{ feature['of'][1] }} then 0e0
  end
{%- endmacro -%}

{#- Integer arithmetic on UTC milliseconds; 1970-01-01 was a Thursday. -#}
{%- macro hour_of_day() -%}
  ((transactions.event_time // 3600000) % 24)
{%- endmacro -%}

{%- macro day_of_week() -%}
  ((transactions.event_time // 86400000 + 3) % 7)
{%- endmacro -%}
