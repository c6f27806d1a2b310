# ruff: noqa: RUF001 (signs that look alike are what this module tells apart)
"""The signs and commands of mathematics that have a synonym, and those that are mere style."""


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


def table(text: str) -> dict[str, str]:
    """The words of a text in pairs, the second of each by the first."""
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=True))


# Written as escapes where a sign can't be told from another one, or can't be seen.
HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63"
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000"
NOTHING = "\u200b\u200c\u200d\u2060\ufeff"
PRIMES = "\u2018\u2019\u2032"
SIGNS = (
    dict.fromkeys(HYPHENS, "-")
    | dict.fromkeys(SPACES, " ")
    | dict.fromkeys(NOTHING, "")
    | dict.fromkeys(PRIMES, "'")
    | {sign: ascii_sign + " " for sign, ascii_sign in table("\u2236 : \u2215 / \u2044 / 、 , 。 .").items()}
    | {
        sign: command + " "
        for sign, command in table(
            r"× \times · \cdot ⋅ \cdot ∗ \cdot ÷ \div √ \surd ∞ \infty ≤ \le ≥ \ge ≠ \ne ⩽ \le ⩾ \ge ≈ \approx "
            r"∈ \in ∉ \notin ∪ \cup ∩ \cap ± \pm ∓ \mp ° ^{\circ} ⌊ \lfloor ⌋ \rfloor ⌈ \lceil ⌉ \rceil ℝ "
            r"\mathbb{R} ℤ \mathbb{Z} ℕ \mathbb{N} ℚ \mathbb{Q} ℂ \mathbb{C} ∅ \emptyset … \ldots ⋯ \cdots ∠ "
            r"\angle △ \triangle ⟨ \langle ⟩ \rangle ∨ \lor ∧ \land ∖ \setminus → \to ⇒ \Rightarrow α \alpha β "
            r"\beta γ \gamma δ \delta ε \epsilon ζ \zeta η \eta θ \theta ι \iota κ \kappa λ \lambda μ \mu ν "
            r"\nu ξ \xi π \pi ρ \rho ς \varsigma σ \sigma τ \tau υ \upsilon φ \phi χ \chi ψ \psi ω \omega Γ "
            r"\Gamma Δ \Delta Θ \Theta Λ \Lambda Ξ \Xi Π \Pi Σ \Sigma Υ \Upsilon Φ \Phi Ψ \Psi Ω \Omega"
        ).items()
    }
)
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ⁽⁾", "0123456789+-ni()", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))

STYLES = frozenset(
    listed(
        "boldsymbol mathbf bm pmb mathit mathcal mathsf mathtt mathnormal mathfrak displaystyle textstyle "
        "scriptstyle left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr bigm "
        "quad qquad enspace thinspace , ; : ! space hfill limits nolimits rm bf it boxed fbox ensuremath "
        "medspace thickspace underline large Large LARGE huge Huge normalsize small"
    )
)
TEXTS = listed("text textrm textbf textit textnormal mbox textsf hbox textup emph")
ROMANS = listed("mathrm operatorname")
SAME_COMMAND = table(
    "dfrac frac tfrac frac cfrac frac dbinom binom tbinom binom leq le leqslant le leqq le geq ge "
    "geqslant ge geqq ge neq ne lbrace { rbrace } ast cdot vee lor wedge land dots ldots dotsc ldots "
    "varnothing emptyset bar overline centerdot cdot backslash setminus imath i iff Leftrightarrow"
)
MARK_COMMANDS = table("lt < gt > colon : lvert | rvert | vert | mid | prime ' lbrack [ rbrack ] lparen ( rparen )")
TWO_CHARACTERS = table("<= le >= ge != ne")
