{#-
  Every window of the project. A window of w ms before t is [t - w, t): it ends strictly before the row, so that
  rows of one millisecond do not see each other. It is the difference of two running totals of the key: of all that
  lies before the row's moment, and of all that lies before the window's first row. A further total costs one running
  sum and no frame of its own, and skewed keys cost like others.
-#}

{#- Over everything of the key that lies before the row's moment. -#}
{%- macro running(keys) -%}
  over (partition by {{ keys | join(', ') }} order by moment {{ before_the_moment() }})
{%- endmacro -%}

{#- Over what of it lies in the window, row by row: for what no difference of totals can tell. -#}
{%- macro within(keys, window_ms) -%}
  over (
    partition by {{ keys | join(', ') }}
    order by moment
    range between {{ before('moment', window_ms) }} preceding and {{ adapter.dispatch('end_of_frame')() }}
  )
{%- endmacro -%}

{#- How long before `moment` a window of w ms begins: a bound of a frame. -#}
{%- macro before(moment, window_ms) -%}
  {{- return(moment ~ ' - ' ~ window_start(moment, window_ms) if var('tail_ms') else window_ms) -}}
{%- endmacro -%}

{#- Of ones and NULLs the sum is the count, which is faster; of a condensed past (built_through) it is not. -#}
{%- macro running_total(expression, keys, is_count) -%}
  {%- if is_count and built_through() is none -%}
    count({{ expression }}) {{ running(keys) }}
  {%- else -%}
    coalesce(sum({{ expression }}) {{ running(keys) }}, 0)
  {%- endif -%}
{%- endmacro -%}

{%- macro before_the_moment() -%}
  range between unbounded preceding and {{ adapter.dispatch('end_of_frame')() }}
{%- endmacro -%}

{%- macro default__end_of_frame() -%}
  1 preceding
{%- endmacro -%}

{#- The same frame; DuckDB finds the rows of one moment faster than the moment before. -#}
{%- macro duckdb__end_of_frame() -%}
  current row exclude group
{%- endmacro -%}

{#- What `columns` were at the first row of the window, as one value. -#}
{%- macro at_start(keys, columns, window_ms) -%}
  first_value({{ adapter.dispatch('packed')(columns) }}) over (
    partition by {{ keys | join(', ') }}
    order by moment
    range between {{ before('moment', window_ms) }} preceding and current row
  )
{%- endmacro -%}

{%- macro default__packed(columns) -%}
  struct({{ columns | join(', ') }})
{%- endmacro -%}

{%- macro duckdb__packed(columns) -%}
  struct_pack({% for column in columns %}{{ column }} := {{ column }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro -%}

{#-
  The first moment that a window of w ms before `moment` holds. With tail_ms, which is there to show what others
  get wrong, it is rounded down to a multiple of it, so that the window spans w to w + tail_ms.
-#}
{%- macro window_start(moment, window_ms) -%}
  {%- if var('tail_ms') -%}
    (({{ moment }} - {{ window_ms }}) // {{ var('tail_ms') }} * {{ var('tail_ms') }})
  {%- else -%}
    ({{ moment }} - {{ window_ms }})
  {%- endif -%}
{%- endmacro -%}

{#- A total of the window; and the values present in it: started before its end, not ended before its start. -#}
{%- macro inside(total, feature) -%}
  {%- set begin = feature['window_ms'] + feature['offset_ms'] -%}
  ({{ 'before_' ~ feature['offset_ms'] ~ '.' if feature['offset_ms'] }}{{ total }} - before_{{ begin }}.{{ total }})
{%- endmacro -%}

{#- The last moments of the key before the row's, or up to its own; whole moments, so that ties need no order. -#}
{%- macro last_moments(keys, number, with_own) -%}
  over (
    partition by {{ keys | join(', ') }}
    order by event_time
    groups between {{ number - 1 if with_own else number }} preceding and {{ 'current row' if with_own else '1 preceding' }}
  )
{%- endmacro -%}

{#- What `column` was at the key's last moment before a window of offset_ms: where one that ends there ends. -#}
{%- macro at_offset(keys, column, offset_ms) -%}
  last_value({{ column }}) over (
    partition by {{ keys | join(', ') }}
    order by event_time
    range between unbounded preceding and {{ before('event_time', offset_ms) if offset_ms else 0 }} + 1 preceding
  )
{%- endmacro -%}

{%- macro present(of, feature) -%}
  ({{ starts(of, feature['window_ms']) }} - before_{{ feature['window_ms'] }}.{{ ends(of, feature['window_ms']) }})
{%- endmacro -%}

{%- macro starts(of, window_ms) -%}
  starts_{{ of }}_{{ window_ms }}
{%- endmacro -%}

{%- macro ends(of, window_ms) -%}
  ends_{{ of }}_{{ window_ms }}
{%- endmacro -%}
