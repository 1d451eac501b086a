"""What a net is, costs and lacks: report, differences, explanations, checks of weights, fixes."""
