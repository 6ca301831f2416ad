{#-
  One macro a kind of aggregate, named aggregate_<kind>: a column of the entity's timeline (see
  entity_features) turned into a DOUBLE. Its twin is the class of the same kind in
  fraud_platform/features/aggregates.py. On rows of the other stream `amount_minor`, `event_time` and every
  other column of transactions are NULL, and `reported` is 1 on rows of fraud_reports only.
-#}

{%- macro aggregate(feature) -%}
  {{ context['aggregate_' ~ feature['kind']](feature) }}
{%- endmacro -%}

{%- macro aggregate_count(feature) -%}
  {%- set counted = 'reported' if feature.get('stream') == 'fraud_reports' else 'event_time' -%}
  cast(count({{ counted }}) {{ frame(feature['entity'], feature['window_ms']) }} as double)
{%- endmacro -%}

{%- macro aggregate_sum(feature) -%}
  coalesce(cast(sum({{ feature['of'] }}) {{ frame(feature['entity'], feature['window_ms']) }} as double), 0e0)
{%- endmacro -%}

{%- macro aggregate_mean(feature) -%}
  cast(sum({{ feature['of'] }}) {{ frame(feature['entity'], feature['window_ms']) }} as double)
  / nullif(cast(count({{ feature['of'] }}) {{ frame(feature['entity'], feature['window_ms']) }} as double), 0e0)
{%- endmacro -%}

{#- n * sum of squares - square of the sum: an exact integer until the last step. -#}
{%- macro aggregate_std(feature) -%}
  {%- set over = frame(feature['entity'], feature['window_ms']) -%}
  {%- set of = feature['of'] -%}
  case
    when count({{ of }}) {{ over }} > 1 then
      sqrt({{ exact_double(
        'count(' ~ of ~ ') ' ~ over ~ ' * sum(' ~ as_integer128(of) ~ ' * ' ~ of ~ ') ' ~ over
        ~ ' - ' ~ as_integer128('sum(' ~ of ~ ') ' ~ over) ~ ' * ' ~ as_integer128('sum(' ~ of ~ ') ' ~ over)
      ) }}) / cast(count({{ of }}) {{ over }} as double)
  end
{%- endmacro -%}

{%- macro aggregate_distinct(feature) -%}
  cast(count(distinct {{ feature['of'] }}) {{ frame(feature['entity'], feature['window_ms']) }} as double)
{%- endmacro -%}

{%- macro aggregate_seconds_since_last(feature) -%}
  cast(event_time - max(event_time) {{ frame(feature['entity']) }} as double) / 1000e0
{%- endmacro -%}

{%- macro aggregate_age_seconds(feature) -%}
  cast(event_time - min(event_time) {{ frame(feature['entity']) }} as double) / 1000e0
{%- endmacro -%}

{%- macro aggregate_is_new(feature) -%}
  case when min(event_time) {{ frame(feature['entity']) }} is null then 1e0 else 0e0 end
{%- endmacro -%}

{%- macro aggregate_distance_km(feature) -%}
  {{ distance_km('(' ~ last_place(feature) ~ ').', 'place.') }}
{%- endmacro -%}

{%- macro aggregate_speed_kmh(feature) -%}
  {{ aggregate_distance_km(feature) }}
  / (cast(event_time - ({{ last_place(feature) }}).event_time as double) / 3600000e0)
{%- endmacro -%}

{#- Of the last moment with a known place; where that moment has several, the greatest by latitude, then longitude. -#}
{%- macro last_place(feature) -%}
  max(place) {{ frame(feature['entity']) }}
{%- endmacro -%}

{#- Integers of 128 bits, and their nearest double by two correctly rounded steps, the same in every engine. -#}
{%- macro as_integer128(expression) -%}
  cast({{ expression }} as hugeint)
{%- endmacro -%}

{%- macro exact_double(expression) -%}
  (cast(({{ expression }}) // 9007199254740992 as double) * 9007199254740992e0
    + cast(({{ expression }}) % 9007199254740992 as double))
{%- endmacro -%}
