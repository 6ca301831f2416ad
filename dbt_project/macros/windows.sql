{#-
  Every window frame of the project. A window of w ms before t is [t - w, t): it ends strictly before the
  row, so that rows of one millisecond do not see each other. Without w it reaches back to the beginning.
  Var tail_ms rounds t - w down to a multiple of it, as systems with buckets do: never 0 but to show what that costs.
-#}
{%- macro frame(entity, window_ms=none) -%}
  over (
    partition by {{ var('entities')[entity] | join(', ') }}
    order by moment
    range between
    {%- if not window_ms %} unbounded preceding
    {%- elif var('tail_ms') %} ({{ window_ms }} + (moment - {{ window_ms }}) % {{ var('tail_ms') }}) preceding
    {%- else %} {{ window_ms }} preceding
    {%- endif %} and 1 preceding
  )
{%- endmacro -%}
