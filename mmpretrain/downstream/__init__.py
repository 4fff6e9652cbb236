"""What stages that learn from labels stand on: fine-tuning and its folds, frozen probes, baselines, units of frames."""
