{#-
  Straight-line kilometres between two places, from nothing but + - * / and sqrt: IEEE 754 defines these to
  the bit, so that every engine and machine agrees, which sin and cos of a mathematical library do not
  promise. Sine and cosine are their Taylor sums on half angles, exact to 2e-10 (about a millimetre). Twin:
  fraud_platform/features/geometry.py, the same operations in the same order.
-#}

{%- macro taylor(square, denominators) -%}
  {%- if denominators -%}
    (1e0 - {{ square }} / {{ denominators[0] }}e0 * {{ taylor(square, denominators[1:]) }})
  {%- else -%}
    1e0
  {%- endif -%}
{%- endmacro -%}

{%- macro half_angle(degrees) -%}
  {{ degrees }} * 8.726646259971648e-03
{%- endmacro -%}

{%- macro sine(angle) -%}
  {{ angle }} * {{ taylor(angle ~ ' * ' ~ angle, [6, 20, 42, 72, 110, 156, 210]) }}
{%- endmacro -%}

{%- macro cosine(angle) -%}
  {{ taylor(angle ~ ' * ' ~ angle, [2, 12, 30, 56, 90, 132, 182]) }}
{%- endmacro -%}

{%- macro distance_km(from, to) -%}
  6371.0088e0 * sqrt(
    ({{ to }}x - {{ from }}x) * ({{ to }}x - {{ from }}x)
    + ({{ to }}y - {{ from }}y) * ({{ to }}y - {{ from }}y)
    + ({{ to }}z - {{ from }}z) * ({{ to }}z - {{ from }}z)
  )
{%- endmacro -%}
